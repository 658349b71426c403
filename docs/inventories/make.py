"""Writes the inventories of other projects, so that the API reference links to their pages without a network.

Each inventory contains the names that the docstrings and pages of this package refer to, with their documented
addresses. Run after adding a name::

    pip install sphobjinv
    python docs/inventories/make.py
"""

from pathlib import Path

from sphobjinv import DataObjStr, Inventory, compress, writebytes

FOLDER = Path(__file__).parent

# project -> (type, name, address relative to the base address in docs/conf.py; $ stands for the name)
NAMES: dict[str, list[tuple[str, str, str]]] = {
    "torch": [
        ("class", "torch.Tensor", "tensors.html#$"),
        ("class", "torch.nn.Module", "generated/$.html#$"),
        ("class", "torch.nn.DataParallel", "generated/$.html#$"),
        ("function", "torch.func.functional_call", "generated/$.html#$"),
    ],
    "captum": [
        ("class", "captum.attr.FeatureAblation", "feature_ablation.html#$"),
        ("class", "captum.attr.IntegratedGradients", "integrated_gradients.html#$"),
        ("class", "captum.attr.KernelShap", "kernel_shap.html#$"),
        ("class", "captum.attr.LayerGradCam", "layer.html#$"),
        ("class", "captum.attr.Lime", "lime.html#$"),
        ("class", "captum.attr.NoiseTunnel", "noise_tunnel.html#$"),
        ("class", "captum.attr.Occlusion", "occlusion.html#$"),
        ("class", "captum.attr.Saliency", "saliency.html#$"),
        ("class", "captum.attr.ShapleyValueSampling", "shapley_value_sampling.html#$"),
        ("class", "captum.attr.ShapleyValues", "shapley_value_sampling.html#$"),
    ],
    "numpy": [
        ("class", "numpy.ndarray", "reference/generated/$.html#$"),
        ("function", "numpy.random.default_rng", "reference/random/generator.html#$"),
    ],
    "transformers": [
        ("class", "transformers.PreTrainedModel", "main_classes/model#$"),
        ("class", "transformers.Pipeline", "main_classes/pipelines#$"),
    ],
}


def write(project: str) -> None:
    """Write the inventory of a project."""
    inventory = Inventory()
    inventory.project, inventory.version = project, "stable"
    for role, name, address in NAMES[project]:
        uri = address.replace("$", name)
        inventory.objects.append(DataObjStr(name=name, domain="py", role=role, priority="1", uri=uri, dispname="-"))
    writebytes(FOLDER / f"{project}.inv", compress(inventory.data_file()))


if __name__ == "__main__":
    for project in NAMES:
        write(project)
