"""Which blocks z can be drawn in; without torch, so that plans may ask."""

from stages.errors import UsageError


def check_blocks(num_blocks: int, units: int, latent_size: int, *, joint: bool) -> None:
    """Refuse blocks that z cannot be cut into, that have no units or are not drawn as one.

    Raises:
        UsageError: with what to do.
    """
    if num_blocks == 0:
        return
    if not joint:
        raise UsageError(
            f"memory.num_blocks = {num_blocks} needs a joint mixture.",
            why="All numbers of a block are drawn from one component.",
            fix="Set memory.joint_mixture=true.",
        )
    if num_blocks < 1 or latent_size % num_blocks:
        raise UsageError(
            f"memory.num_blocks = {num_blocks} does not divide vision.latent_size = {latent_size}.",
            fix="Use a number that does.",
        )
    if units < 1:
        raise UsageError(f"memory.block_hidden = {units} is too small.", fix="Use at least 1.")
