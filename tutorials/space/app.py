"""A Hugging Face Space that explains the predictions of ViT and DeiT."""

from captum_moxi.app import AppModels, create_app, serve

app = create_app(AppModels(["WinKawaks/vit-tiny-patch16-224", "facebook/deit-tiny-patch16-224"]))
# Spaces set the address and the port in the environment.
serve(app)
app.block_thread()
