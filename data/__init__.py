"""Floor 0: records, masks, one file per data set format, quotas, splits and export."""
