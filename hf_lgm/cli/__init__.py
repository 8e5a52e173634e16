"""The commands: flags in, tables out."""
