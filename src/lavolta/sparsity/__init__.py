"""What may be zero: cells, block pruning, rankings and cuts, pattern sets, and the packed layout. NumPy only."""

from lavolta.sparsity.block import GroupGrid as GroupGrid
from lavolta.sparsity.block import block_prune_cells as block_prune_cells
from lavolta.sparsity.block import prune_groups as prune_groups
from lavolta.sparsity.block import random_groups as random_groups
from lavolta.sparsity.cells import CELL_ROWS as CELL_ROWS
from lavolta.sparsity.cells import CellGrid as CellGrid
from lavolta.sparsity.packing import PackedLinear as PackedLinear
from lavolta.sparsity.packing import pack_linear as pack_linear
from lavolta.sparsity.packing import unpack_linear as unpack_linear
from lavolta.sparsity.pattern_sets import PatternSet as PatternSet
from lavolta.sparsity.pattern_sets import RankedPatternSet as RankedPatternSet
from lavolta.sparsity.pattern_sets import pattern_storage as pattern_storage
from lavolta.sparsity.patterns import assign as assign
from lavolta.sparsity.patterns import generate_pattern_set as generate_pattern_set
from lavolta.sparsity.patterns import pattern_set_for_model as pattern_set_for_model
from lavolta.sparsity.patterns import random_pattern_set as random_pattern_set
from lavolta.sparsity.patterns import ranked_pattern_rankings as ranked_pattern_rankings
from lavolta.sparsity.ranking import NEVER as NEVER
from lavolta.sparsity.ranking import LayerRanking as LayerRanking
from lavolta.sparsity.ranking import LevelMasks as LevelMasks
from lavolta.sparsity.ranking import are_nested as are_nested
from lavolta.sparsity.ranking import free_ranking as free_ranking
from lavolta.sparsity.ranking import level_masks as level_masks
from lavolta.sparsity.ranking import model_sparsity as model_sparsity
from lavolta.sparsity.ranking import uniform_cuts as uniform_cuts
