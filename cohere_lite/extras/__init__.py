"""What the runtime works without: other kinds of audio, the hub, prepared copies of models, subtitles, ADPCM."""
