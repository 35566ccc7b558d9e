"""A stub that finds half; workers import it, and so it is in a module that imports little."""

from tests.pipelines.stub import StubGenerator


class HalfGenerator(StubGenerator):
    """The stub's mask, but only its left half."""

    def generate_batch(self, images):
        black = [image.copy() for image in images]
        for image in black:
            image[:, image.shape[1] // 2 :] = 0
        return super().generate_batch(black)


def make_half(config, heartbeat):
    return HalfGenerator(heartbeat)
