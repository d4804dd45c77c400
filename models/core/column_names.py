"""The names of the columns that models read beside the features: for the loss and the metrics."""

from __future__ import annotations

#: Columns of the splits that name rows of the tables.
USER_ROW, ITEM_ROW = "user_row", "item_row"
#: The weight of a row in the loss; absent where all rows weigh the same.
ROW_WEIGHT = "row_weight"
