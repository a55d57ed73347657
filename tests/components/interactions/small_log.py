"""A log of few events as CSV, and features of their queries and candidates."""

from models.features.spec import FeatureConfig, FeaturesConfig

# u: a b c d, v: b c, w: a; time runs against the order of the file for u.
EVENTS = "q,c,t\nu,d,40\nv,b,10\nu,a,10\nu,c,30\nw,a,50\nv,c,20\nu,b,20\n"
FEATURES = FeaturesConfig(
    query={"age": FeatureConfig(kind="numeric"), "country": FeatureConfig(kind="categorical")},
    candidate={
        "title": FeatureConfig(kind="text"),
        "genres": FeatureConfig(kind="categorical", separator="|", column="kinds"),
    },
)
