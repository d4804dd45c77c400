"""Names of columns, other than features, that the loss and the metrics read."""

from __future__ import annotations

#: Columns of a split that hold row numbers of the user and item tables.
USER_ROW, ITEM_ROW = "user_row", "item_row"
#: Column with the weight of a row in the loss; absent if all rows have the same weight.
ROW_WEIGHT = "row_weight"
#: The property by which a column of weights names the list whose values they weigh.
WEIGHTS_OF = "weights_of"
#: The property of a column of vectors that the towers divide by their L2 norms.
NORMALIZE = "unit_norm"
#: The property of a column of vectors with the share of their numbers that dropout sets to 0.
VECTOR_DROPOUT = "vector_dropout"
#: The query input with the seconds since each item of a history, before a moment that all items of
#: the history share, such as its last item: only differences between ages matter.
HISTORY_AGES = "history_ages"
#: The property by which the column of ages names the history whose items they are the ages of.
AGES_OF = "ages_of"
#: In a batch, the number of each row's user among the users of the batch; and for each of these
#: users the list of the user's positive items, as row numbers in the item table.
BATCH_USER, POSITIVES = "batch_user", "user_positives"
