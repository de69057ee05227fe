"""Twenty titles of things that could be sold, one of them long enough for the farthest position buckets."""

TITLES = [
    "Red wooden chair with arm rests",
    "USB charging cable, 2 m",
    "Lavender hand soap & refill (500 ml)",
    "Waterproof hiking boots for women",
    "The history of lighthouses, volume 3",
    "Ceramic teapot",
    "Noise-cancelling headphones with microphone",
    "100% cotton bed sheets, king size",
    "Crème brûlée torch",
    "Wireless mouse",
    "Set of 6 stainless steel mixing bowls",
    "Puzzle: map of the world, 1000 pieces",
    "Dog collar",
    "Electric toothbrush with 4 heads",
    "A very long title for a garden hose that is told in every detail, with its length of 25 metres, its brass "
    "fittings, its spray gun with seven patterns, its wall holder, and the promise that it neither kinks nor leaks",
    "Yoga mat 6mm",
    "Acoustic guitar strings (light gauge)",
    "Kids' raincoat, yellow",
    "Espresso beans 1kg, dark roast",
    "x",
]
