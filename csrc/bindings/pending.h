// Launchers of launch.h that have no kernel yet. A call of one says so; the list goes when the last of them is written.
#pragma once

#pragma weak pymimic_shallow_backward_rows
#pragma weak pymimic_shallow_backward_rows_workspace
#pragma weak pymimic_shallow_backward_units
#pragma weak pymimic_shallow_step_in_place
#pragma weak pymimic_shallow_backward_step
#pragma weak pymimic_optimizer_update
#pragma weak pymimic_serve
#pragma weak pymimic_serve_workspace
#pragma weak pymimic_linear_dropout
#pragma weak pymimic_linear_dropout_backward
#pragma weak pymimic_linear_dropout_backward_workspace
#pragma weak pymimic_column_sums
#pragma weak pymimic_column_sums_workspace
#pragma weak pymimic_loss_workspace
#pragma weak pymimic_mimic_loss
#pragma weak pymimic_cross_entropy
#pragma weak pymimic_distillation_loss
#pragma weak pymimic_pack
