"""One static folder that shows what a run found and where it failed: `amg report`."""
