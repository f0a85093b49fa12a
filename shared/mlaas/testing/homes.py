"""A platform's home with tiny models in its catalog, ready to serve: `infn-structures`, `physics-lm`, `minilm`, `physics-ner`,
`laboratories`, `physics-writer`, index `abstracts`."""

from __future__ import annotations

from pathlib import Path

from .. import bundles, embedder, engine, storage, vector_store
from ..catalog import Catalog
from ..documents import connect
from ..settings import Settings, load
from . import tiny_models

__all__ = ["ABSTRACTS", "publish_tiny_models", "tiny_home"]

ABSTRACTS = (
    ("syn-1", "the higgs boson was found at the large hadron collider", "hep-ex"),
    ("syn-2", "neutrino oscillations show that neutrinos have mass", "hep-ph"),
    ("syn-3", "dark matter interacts through gravity", "astro-ph"),
)


def tiny_home(folder: Path) -> Settings:
    """Make the home in `folder` and return its settings."""
    settings = load({"MLAAS_HOME": str(folder / "home")})
    publish_tiny_models(folder, settings)
    settings.artefacts.joinpath("affiliations.tsv").write_text("affiliation\tlabel\nINFN Frascati\tLNF\nINFN CNAF\tCNAF\n")
    settings.artefacts.joinpath("checkpoints/tiny").mkdir(parents=True)
    settings.artefacts.joinpath("checkpoints/tiny/config.json").write_text("{}")
    return settings


def publish_tiny_models(folder: Path, settings: Settings, storage_type: str = "local", prefix: str = "") -> None:
    """Put the models and the index into the storage, under `prefix`, and into the catalog that `settings` name; `folder` is for work."""
    made = {
        "infn-structures": tiny_models.classifier(folder / "classifier"),
        "physics-lm": tiny_models.mask_filler(folder / "filler"),
        "minilm": tiny_models.embedder(folder / "embedder"),
        "physics-ner": tiny_models.tagger(folder / "tagger"),
        "laboratories": tiny_models.reader(folder / "reader"),
        "physics-writer": tiny_models.language_model(folder / "writer"),
    }
    catalog = Catalog(connect(settings.documents_url))
    for name, bundle in made.items():
        path = storage.publish(bundle.folder, f"{prefix}models/{name}", storage_type, bundle.digest[:16], settings=settings)
        catalog.publish("models", name, bundle.digest, {"path": path, "storage_type": storage_type, "objective": bundle.objective})
    model = engine.load(bundles.open_bundle(made["minilm"].folder))
    manifest = vector_store.build(
        folder / "store",
        [vector_store.Document(key, text, {"field": field}) for key, text, field in ABSTRACTS],
        lambda texts: embedder.embed(model, texts)[0],
        model_digest=made["minilm"].digest,
        model={"name": "minilm", "revision": "1", "digest": made["minilm"].digest},
        provenance={},
    )
    path = storage.publish(folder / "store", f"{prefix}indexes/abstracts", storage_type, manifest.digest[:16], settings=settings)
    catalog.publish(
        "indexes",
        "abstracts",
        manifest.digest,
        {"path": path, "storage_type": storage_type, "count": 3, "dimension": manifest.dimension, "model_name": "minilm", "request": {}},
    )
    catalog.documents.close()
