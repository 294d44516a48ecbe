"""The table of methods: name to "module:Class". A new method is one file and one line here."""

TABLE = {
    "full": "tunesmith.methods.full:Full",
    "probe": "tunesmith.methods.probe:Probe",
}
