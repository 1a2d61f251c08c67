"""How far does a frozen ImageNet VGG16 take you on a few pictures per class?"""
