"""More hidden units than one machine holds: each process has some of them, and sums of y and dz are all that they exchange."""

from ..errors import GroupError as GroupError
from .group import Group as Group
from .group import ProcessGroup as ProcessGroup
from .launch import joined as joined
from .speed import measured_shares as measured_shares
from .student import ShardedStudent as ShardedStudent
from .units import Units as Units
from .units import dealt as dealt
from .weights import ShardedWeights as ShardedWeights
