"""The pruning core: the science, without a server.

Importing it makes ``transformers`` able to read Coppice's checkpoints, and loads neither torch nor transformers itself.
"""

from pruning_core.plugin.hook import install

install()
