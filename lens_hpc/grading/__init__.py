"""Vetting: candidates shown to graders, grades on disk, graders measured, grades combined, and the
next generation's dataset."""
