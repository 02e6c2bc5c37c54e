"""Networks: what exists by name (`names`), the small CIFAR-style ones (`small_resnet`), construction (`build`), weights
in the store (`backbones`)."""
