"""The table of methods: name to "module:Class". A new method is one file and one line here."""

TABLE = {
    "bitfit": "tunesmith.methods.bitfit:BitFit",
    "full": "tunesmith.methods.full:Full",
    "gradual": "tunesmith.methods.gradual:Gradual",
    "lp-ft": "tunesmith.methods.lp_ft:LpFt",
    "norm-only": "tunesmith.methods.norm_only:NormOnly",
    "partial": "tunesmith.methods.partial:Partial",
    "probe": "tunesmith.methods.probe:Probe",
}
