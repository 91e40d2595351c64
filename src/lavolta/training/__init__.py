"""How weights recover: calibration, one-shot compensation, group lasso, joint training of all levels. Needs torch."""
