"""Where workers run, a file an engine; import the corpus run's own modules, and Ray in one."""
