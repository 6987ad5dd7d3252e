"""Five points of every face: MediaPipe's face landmark networks, run by LiteRT."""
