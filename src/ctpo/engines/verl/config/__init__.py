"""Parts of a configuration for verl: `hydra.searchpath=[pkg://ctpo.engines.verl.config]`."""
