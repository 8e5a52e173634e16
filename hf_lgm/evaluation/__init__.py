"""Judged: probes, references, baselines, tables, transfer."""
