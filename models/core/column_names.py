"""Names of the columns of training data that are no features, but needed by loss and metrics."""

from __future__ import annotations

#: Columns of a split that hold row numbers of the user and item tables.
USER_ROW, ITEM_ROW = "user_row", "item_row"
#: Column with the weight of a row in the loss; absent if all rows have the same weight.
ROW_WEIGHT = "row_weight"
