"""Define the names of columns that verbs add to tables; no feature of a recipe may have them.

The columns that models read (`user_row`, `item_row`, `row_weight`) are named in `models.core`.
"""

from __future__ import annotations

from models.core.column_names import ITEM_ROW, ROW_WEIGHT, USER_ROW

#: The columns that etl adds to its tables: whether train has the row's id, and in how many rows.
IN_TRAIN, TRAIN_COUNT = "in_train", "train_count"
#: The columns beside the ids in a file of embeddings: code and embedding.
USER_CODE, ITEM_CODE, EMBEDDING = "user_code", "item_code", "embedding"
#: The columns that are added to the ids in a recommendation list.
RANK, SCORE, ANSWERED_BY, RANKER_SCORE = "rank", "score", "answered_by", "ranker_score"

#: All columns that etl and export add to tables.
OF_TABLES = (USER_ROW, ITEM_ROW, ROW_WEIGHT, IN_TRAIN, TRAIN_COUNT, USER_CODE, ITEM_CODE)
#: All columns that are added to recommendation lists and files of embeddings.
OF_LISTS = (RANK, SCORE, ANSWERED_BY, RANKER_SCORE, EMBEDDING)

_INPUT = "_input"


def input_of(column: str) -> str:
    """Return the name of the exported column that holds a column's encoded values for a tower."""
    return column + _INPUT
