"""Results out: data frames, AnnData, files, attention archives and the report page."""
