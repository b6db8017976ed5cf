"""What must hold: one folder per area, one file per behaviour."""
