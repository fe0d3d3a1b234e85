"""The service: cells come by HTTP and share the slots of one model; needs the extra ``cellscribe[serve]``."""
