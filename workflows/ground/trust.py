"""Looks at files that would run or read something when they are loaded, before they are loaded.

A SavedModel is a program: its operations can read and write files. HDF5 files can point at other
files of the machine. FAISS does not validate what it reads. The hashes of a manifest do not help
against malice, since whoever can write a run can write its hashes. So a SavedModel's operations are
compared with a list of those that towers need, HDF5 files with links are refused, and manifests can
carry a signature with a key that lies outside of the run (`TWO_TOWER_SIGNING_KEY`).

TensorFlow's SECURITY.md: "TensorFlow models are programs". A run that you do not trust needs a
sandbox all the same; these checks refuse what is known.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from workflows.ground.errors import ArtifactError

log = logging.getLogger(__name__)

#: Environment variable that holds the secret with which manifests are signed.
SIGNING_KEY = "TWO_TOWER_SIGNING_KEY"

# ── SavedModels ─────────────────────────────────────────────────────────────────────────

_ARITHMETIC = """
    Abs Add AddN AddV2 All Any ArgMax ArgMin BatchMatMul BatchMatMulV2 BiasAdd Cast Ceil ClipByValue
    Cos Cumprod Cumsum Div DivNoNan Einsum Elu Equal Erf Erfc Exp Expm1 Floor FloorDiv FloorMod
    Greater GreaterEqual IsFinite IsInf IsNan L2Loss LeakyRelu Less LessEqual Log Log1p LogSoftmax
    LogicalAnd LogicalNot LogicalOr MatMul Max Maximum Mean Min Minimum Mod Mul MulNoNan Neg
    NotEqual OnesLike Pow Prod RealDiv Reciprocal Relu Relu6 Rint Round Rsqrt Selu Sigmoid Sign Sin
    Softmax Softplus Softsign Sqrt Square SquaredDifference Sub Sum Tan Tanh TopK TopKV2 TruncateDiv
    Xdivy Xlogy ZerosLike _FusedBatchNormEx FusedBatchNormV3 _FusedMatMul
"""
_SHAPES = """
    BroadcastArgs BroadcastTo Concat ConcatV2 Const DynamicPartition DynamicStitch EnsureShape
    ExpandDims Fill Gather GatherNd GatherV2 Identity IdentityN InvertPermutation LinSpace
    MatrixBandPart MirrorPad NoOp OneHot Pack Pad PadV2 ParallelDynamicStitch Placeholder
    PlaceholderWithDefault PreventGradient Range Rank Repeat Reshape ResourceGather ResourceGatherNd
    Reverse ReverseSequence ReverseV2 ScatterNd Select SelectV2 Shape ShapeN Size Slice Snapshot
    Split SplitV Squeeze StopGradient StridedSlice TensorScatterUpdate Tile Transpose Unpack Where
    Assert Bitcast
"""
_LISTS = """
    Bincount DenseBincount RaggedBincount RaggedGather RaggedRange RaggedTensorFromVariant
    RaggedTensorToSparse RaggedTensorToTensor RaggedTensorToVariant SearchSorted LowerBound
    UpperBound SegmentMax SegmentMean SegmentMin SegmentSum SparseFillEmptyRows SparseReshape
    SparseReorder SparseSegmentMean SparseSegmentMeanWithNumSegments SparseSegmentSqrtN
    SparseSegmentSum SparseSegmentSumWithNumSegments SparseSlice SparseTensorDenseMatMul
    SparseToDense Unique UniqueV2 UniqueWithCounts UniqueWithCountsV2 UnsortedSegmentMax
    UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum TensorListConcatV2
    TensorListFromTensor TensorListGetItem TensorListReserve TensorListSetItem TensorListStack
    TensorListLength TensorListElementShape EmptyTensorList TensorListPushBack TensorListPopBack
"""
_TEXTS = """
    AsString RegexFullMatch RegexReplace StaticRegexFullMatch StaticRegexReplace StringJoin
    StringLength StringLower StringSplitV2 StringStrip StringToHashBucketFast StringToNumber
    StringUpper Substr UnicodeDecode UnicodeEncode
"""
_CONTROL = """
    Case If Merge PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile
    Switch While LoopCond Enter Exit NextIteration
"""
_STATE = """
    AssignVariableOp HashTableV2 InitializeTableFromTextFileV2 InitializeTableV2
    LookupTableFindV2 LookupTableImportV2 LookupTableSizeV2 MutableHashTableV2 ReadVariableOp
    VarHandleOp VarIsInitializedOp VariableShape DisableCopyOnRead
"""
#: What towers may do: compute, look up, and read their own variables and vocabularies.
ALLOWED = frozenset(" ".join((_ARITHMETIC, _SHAPES, _LISTS, _TEXTS, _CONTROL, _STATE)).split())
#: What TensorFlow itself adds, to functions that only save and restore variables.
_SAVER = frozenset(["MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"])


def refuse_strange_model(folder: Path) -> None:
    """Refuse a SavedModel that holds operations, or files, that no tower of ours needs.

    Args:
        folder: the folder of the SavedModel. It is parsed, and nothing of it is run.

    Raises:
        ArtifactError: names the operation or the file.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / "saved_model.pb"
    for file in folder.rglob("*"):
        if file.is_symlink() or not (file.is_file() or file.is_dir()):
            raise ArtifactError(
                f"{file} is a link or no regular file; a SavedModel of ours holds none. Load only "
                "runs that you trust, or export again."
            )
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError is not one class in all of its versions
        raise ArtifactError(f"{path} cannot be read ({error}). Run `two-tower export`.") from None
    for graph in model.meta_graphs:
        for asset in graph.asset_file_def:
            if Path(asset.filename).name != asset.filename:
                raise ArtifactError(f"{path} names a file outside of its folder: {asset.filename}.")
        for function, op in _strange(graph):
            raise ArtifactError(
                f"{path} holds the operation {op} (in {function}), which no tower of ours needs: a "
                "SavedModel is a program, and this one is not what `two-tower export` writes. It "
                "was not loaded. Load only runs that you trust, or export again."
            )


def _strange(graph: Any) -> Iterator[tuple[str, str]]:
    """Yield function and operation of what a graph should not hold."""
    functions = {f.signature.name: f for f in graph.graph_def.library.function}
    saver = graph.saver_def
    saving = {saver.save_tensor_name.partition(":")[0], saver.restore_op_name}
    main = [node for node in graph.graph_def.node if node.name not in saving]
    entries = {name for node in main for name in _called(node)} | _entries(graph.object_graph_def)
    by_saver = [node for node in graph.graph_def.node if node.name in saving]
    only_saver = _reached({name for node in by_saver for name in _called(node)}, functions)
    only_saver -= _reached(entries, functions)
    yield from (("the graph", node.op) for node in main if node.op not in ALLOWED)
    for name, function in functions.items():
        allowed = ALLOWED | _SAVER if name in only_saver else ALLOWED
        for node in function.node_def:
            # a function can be called by its name, as if it were an operation
            if node.op not in allowed and node.op not in functions:
                yield name, node.op
            if node.op == "InitializeTableFromTextFileV2" and not _reads_argument(node, function):
                yield name, f"{node.op} of a file that is no asset"


def _entries(objects: Any) -> set[str]:
    """Return the functions that whoever loads a model can call."""
    named = set(objects.concrete_functions)
    for node in objects.nodes:
        named |= set(node.function.concrete_functions)
        named.add(node.bare_concrete_function.concrete_function_name)
    return named


def _called(node: Any) -> Iterator[str]:
    yield node.op
    for attribute in node.attr.values():
        yield attribute.func.name
        yield from (function.name for function in attribute.list.func)


def _reached(names: Iterable[str], functions: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    waiting = [name for name in names if name in functions]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            called = (other for node in functions[name].node_def for other in _called(node))
            waiting += [other for other in called if other in functions]
    return found


def _reads_argument(node: Any, function: Any) -> bool:
    """Say whether a table is filled from a file that was given to the function: an asset."""
    return node.input[1] in {argument.name for argument in function.signature.input_arg}


# ── HDF5 ────────────────────────────────────────────────────────────────────────────────


def refuse_strange_weights(path: Path) -> None:
    """Refuse an HDF5 file that points at other files, or holds more numbers than bytes.

    Args:
        path: the path of the weights.

    Raises:
        ArtifactError: names what is wrong.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            total = _weighed(file, path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error}). Run `two-tower train`.") from None
    if total > path.stat().st_size:
        raise _strange_weights(path, f"holds {total:,} bytes of numbers, more than it has")


def _weighed(group: Any, path: Path) -> int:
    """Return how many bytes the numbers of a group have, after a look at each of its members."""
    import h5py

    total = 0
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise _strange_weights(path, f"has a link at {name!r}, which may lead to another file")
        member = group[name]
        if isinstance(member, h5py.Group):
            total += _weighed(member, path)
            continue
        if member.external or member.is_virtual:
            raise _strange_weights(path, f"keeps {name!r} in another file")
        total += member.size * member.dtype.itemsize
    return total


def _strange_weights(path: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"{path} {what}; `two-tower train` writes no such file. It was not loaded. Load only runs "
        "that you trust, or train again."
    )


# ── Arrow ───────────────────────────────────────────────────────────────────────────────


def patch_arrow() -> None:
    """Switch off what a crafted Parquet or IPC file runs in PyArrow before 14.0.1.

    See CVE-2023-47248. The NGC container has such a PyArrow, and the package that patches it.
    """
    import pyarrow as pa

    if tuple(int(part) for part in re.findall(r"\d+", pa.__version__)[:3]) >= (14, 0, 1):
        return
    try:
        import pyarrow_hotfix  # noqa: F401 - importing it is what patches
    except ImportError:
        log.warning(
            "PyArrow %s runs code of crafted files (CVE-2023-47248): install pyarrow-hotfix, and "
            "read only files that you trust.",
            pa.__version__,
        )


# ── signatures ──────────────────────────────────────────────────────────────────────────


def signature(content: bytes) -> str:
    """Return the HMAC-SHA-256 (RFC 2104) of a manifest with the key; empty where there is none."""
    key = os.environ.get(SIGNING_KEY, "")
    return hmac.new(key.encode(), content, hashlib.sha256).hexdigest() if key else ""


def refuse_unsigned(content: bytes, signed: str, path: Path) -> None:
    """Refuse a manifest that was not signed with the key, where there is a key.

    Args:
        content: what was signed.
        signed: its signature, hexadecimal, or empty.
        path: the path of the manifest.

    Raises:
        ArtifactError: it has no signature, or another one.
    """
    if not os.environ.get(SIGNING_KEY) or hmac.compare_digest(signature(content), signed):
        return
    what = "was not signed with this key, or was changed since" if signed else "is not signed"
    raise ArtifactError(
        f"{path} {what}, and ${SIGNING_KEY} is set, so this stage is not used. Make it again with "
        "the key, or unset the key if you trust the run."
    )
