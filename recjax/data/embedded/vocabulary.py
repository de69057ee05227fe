"""Words of the embedded catalogs: themes, styles and roles that all domains share, and what each domain sells."""

THEMES: dict[str, tuple[str, ...]] = {
    "coastal": ("harbour", "tide", "shell", "driftwood", "lighthouse", "sailor", "seagull", "anchor"),
    "alpine": ("summit", "glacier", "ridge", "pine", "snow", "chalet", "granite", "meadow"),
    "desert": ("dune", "cactus", "canyon", "mesa", "sandstone", "nomad", "agave", "oasis"),
    "forest": ("moss", "fern", "oak", "woodland", "mushroom", "owl", "bark", "grove"),
    "garden": ("rose", "lavender", "hedge", "bloom", "trellis", "orchard", "bee", "seedling"),
    "urban": ("skyline", "metro", "neon", "rooftop", "brick", "graffiti", "loft", "avenue"),
    "celestial": ("moon", "comet", "orbit", "starlight", "nebula", "eclipse", "aurora", "zodiac"),
    "medieval": ("castle", "knight", "heraldic", "tapestry", "armour", "minstrel", "abbey", "crown"),
    "tropical": ("palm", "mango", "lagoon", "parrot", "hibiscus", "bamboo", "coral", "monsoon"),
    "vintage": ("gramophone", "sepia", "retro", "jukebox", "tweed", "postcard", "typewriter", "trolley"),
    "industrial": ("steel", "rivet", "piston", "gear", "foundry", "copper", "crane", "workshop"),
    "folk": ("fiddle", "quilt", "barn", "hearth", "harvest", "wicker", "patchwork", "village"),
    "arctic": ("polar", "iceberg", "fjord", "reindeer", "husky", "frost", "igloo", "whale"),
    "safari": ("lion", "savanna", "acacia", "zebra", "rhino", "expedition", "drum", "baobab"),
    "carnival": ("circus", "mask", "lantern", "confetti", "juggler", "carousel", "parade", "firework"),
    "scholarly": ("ink", "parchment", "atlas", "archive", "quill", "almanac", "manuscript", "globe"),
}
STYLES: dict[str, tuple[str, ...]] = {
    "minimal": ("plain", "clean", "simple", "slim"),
    "rustic": ("rough", "weathered", "handmade", "earthy"),
    "bold": ("vivid", "bright", "striking", "colourful"),
    "classic": ("timeless", "elegant", "traditional", "refined"),
    "playful": ("quirky", "cheerful", "whimsical", "funny"),
    "luxe": ("gilded", "velvet", "premium", "opulent"),
}
ROLES: dict[str, tuple[str, ...]] = {
    "starter": ("starter", "introductory", "beginner"),
    "essential": ("essential", "everyday", "standard"),
    "companion": ("companion", "matching", "add-on"),
    "refill": ("refill", "spare", "replacement"),
    "advanced": ("advanced", "professional", "expert"),
    "collector": ("collector", "limited", "anniversary"),
}
"""In ring order: a thread of interest moves to a neighbouring role, mostly onwards in the direction it came from."""

DOMAINS: dict[str, tuple[str, tuple[str, ...]]] = {
    "synthetic": (
        "Hobby",
        ("puzzle", "model kit", "board game", "sketchbook", "yarn set", "paint box", "bead kit", "card deck"),
    ),
    "synthetic-a": (
        "Kitchen",
        ("mug", "apron", "teapot", "spice jar", "cutting board", "tray", "napkin set", "lunch box"),
    ),
    "synthetic-b": (
        "Books",
        ("novel", "cookbook", "poetry volume", "biography", "comic", "field guide", "diary", "songbook"),
    ),
    "synthetic-c": (
        "Outdoor",
        ("tent", "rucksack", "flask", "hammock", "rain jacket", "head torch", "blanket", "trail map"),
    ),
}
"""Name of each embedded dataset -> its department and the kinds of thing it sells."""

SYLLABLES = (
    "ka",
    "lo",
    "mi",
    "ren",
    "so",
    "ta",
    "ve",
    "zu",
    "bel",
    "dor",
    "fin",
    "gal",
    "hu",
    "jo",
    "nor",
    "pa",
    "quil",
    "tri",
)
