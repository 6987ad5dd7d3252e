"""Downloads of what may be downloaded: LFW, XQLFW and the landmark model. Nothing else uses the network."""
