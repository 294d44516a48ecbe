"""The table of methods: name to "module:Class". A new method is one file and one line here."""

TABLE = {
    "auto": "tunesmith.methods.auto:Auto",
    "bitfit": "tunesmith.methods.bitfit:BitFit",
    "dora": "tunesmith.methods.lora:DoRA",
    "full": "tunesmith.methods.full:Full",
    "gradual": "tunesmith.methods.gradual:Gradual",
    "ia3": "tunesmith.methods.lora:IA3",
    "lora": "tunesmith.methods.lora:LoRA",
    "lora+": "tunesmith.methods.lora:LoRAPlus",
    "lp-ft": "tunesmith.methods.lp_ft:LpFt",
    "norm-only": "tunesmith.methods.norm_only:NormOnly",
    "partial": "tunesmith.methods.partial:Partial",
    "pissa": "tunesmith.methods.lora:PiSSA",
    "probe": "tunesmith.methods.probe:Probe",
    "rslora": "tunesmith.methods.lora:RsLoRA",
}
