"""Every random number as a function of what it is for, so that nothing random has to be stored or sent.

A generator that is carried along would make the result depend on the number of processes, on the chunk size and on
where a run was interrupted. Worse, a chunk that is encoded twice would see other views the second time: the features
would agree and the gradient would be wrong, without any error.
"""

import hashlib

import torch


def seeded_generator(seed: int, purpose: str, *indices: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose numbers depend on its arguments alone.

    Args:
        seed (`int`): The seed of the run.
        purpose (`str`): What the numbers are for, such as `"views"`: two purposes never share numbers.
        indices (`int`): What tells one use from the next, such as the step and the image.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): Where the numbers are drawn. Devices give
            different numbers.
    """
    text = "/".join([str(seed), purpose, *map(str, indices)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest, "little") >> 1)
