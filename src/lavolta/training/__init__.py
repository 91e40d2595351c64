"""How weights recover: calibration, one-shot compensation, group lasso, and joint training of all levels. Needs torch."""
