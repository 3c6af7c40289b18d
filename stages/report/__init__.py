"""`wm report`: what a workspace holds, as one HTML file. It writes nothing but that file."""
