"""Networks: construction by name (`build`), small CIFAR-style ones (`small_resnet`), weights in the store
(`backbones`), and how attacks and probes use them."""
