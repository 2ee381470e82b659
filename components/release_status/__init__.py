"""Leave how the pipeline ended, whatever happened: status, report, logs."""
