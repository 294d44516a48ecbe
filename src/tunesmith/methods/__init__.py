"""The table of methods: name to "module:Class". A new method is one file and one line here."""

TABLE = {
    "adalora": "tunesmith.methods.adalora:AdaLoRA",
    "bitfit": "tunesmith.methods.parts:BitFit",
    "dora": "tunesmith.methods.lora:DoRA",
    "full": "tunesmith.methods.full:Full",
    "gradual": "tunesmith.methods.gradual:Gradual",
    "ia3": "tunesmith.methods.vectors:IA3",
    "lora": "tunesmith.methods.lora:LoRA",
    "lora+": "tunesmith.methods.lora:LoRAPlus",
    "lp-ft": "tunesmith.methods.lp_ft:LpFt",
    "norm-only": "tunesmith.methods.parts:NormOnly",
    "partial": "tunesmith.methods.partial:Partial",
    "pissa": "tunesmith.methods.lora:PiSSA",
    "prefix": "tunesmith.methods.virtual:PrefixTuning",
    "probe": "tunesmith.methods.probe:Probe",
    "prompt": "tunesmith.methods.virtual:PromptTuning",
    "qlora": "tunesmith.methods.qlora:QLoRA",
    "rslora": "tunesmith.methods.lora:RsLoRA",
    "scratch": "tunesmith.methods.scratch:Scratch",
    "vera": "tunesmith.methods.vectors:VeRA",
}
