// Launchers of launch.h that have no kernel yet. A call of one says so; the list goes when the last of them is written.
#pragma once

#pragma weak pymimic_shallow_backward_rows
#pragma weak pymimic_shallow_backward_rows_workspace
#pragma weak pymimic_shallow_backward_units
#pragma weak pymimic_shallow_step_in_place
#pragma weak pymimic_shallow_backward_step
