"""RT3: one model, one level for each clock of a battery-powered device."""
