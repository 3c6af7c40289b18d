"""On the path of a `wm` process, this registers the toy environment there and in its workers."""

import toy_world

toy_world.register()
