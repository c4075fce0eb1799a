"""A small Parsl application: how much of the unit square lies below a quarter circle?"""

import parsl


@parsl.python_app
def sample(seed, points):
    """Count the points below the circle among ``points`` random ones."""
    import random
    import time

    time.sleep(0.25)  # as if it were real work
    rng = random.Random(seed)
    return sum(rng.random() ** 2 + rng.random() ** 2 < 1.0 for _ in range(points))


def survey(batches, points=1000):
    """Estimate pi from ``batches`` tasks, on the configuration that Parsl has loaded."""
    counts = [sample(seed, points) for seed in range(batches)]
    return 4.0 * sum(count.result() for count in counts) / (batches * points)


if __name__ == "__main__":
    with parsl.load():  # pass the configuration of your own sites here
        print(survey(100))
