#!/bin/sh
# Starts ViZDoom's engine so that the kernel ends it with the process that plays, even if that is killed.
# It makes a folder where it is started, so it is started in one of its own.
cd "$WM_VIZDOOM_FOLDER" || exit 1
if setpriv --pdeathsig KILL true 2>/dev/null; then
  exec setpriv --pdeathsig KILL "$WM_VIZDOOM" "$@"
fi
exec "$WM_VIZDOOM" "$@"
