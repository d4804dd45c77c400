"""Check files of a run before they are loaded, because a malicious file can do harm.

A SavedModel is a program: its operations can read and write files. An HDF5 file can link to other
files of the machine. FAISS does not validate what it reads. The hashes of a manifest do not protect
against an attacker, because a person who can write to a run can also change its hashes. This module
compares the operations of a SavedModel with a list of those that towers need, refuses HDF5 files
with links, and can sign manifests with a key that lies outside the run (`TWO_TOWER_SIGNING_KEY`).

TensorFlow's SECURITY.md: "TensorFlow models are programs". A run that you do not trust still needs
a sandbox; these checks refuse known attacks only.
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

#: The environment variable that holds the secret key for the signatures of manifests.
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
#: Operations that towers may have: these compute, look up, and read variables and vocabularies.
ALLOWED = frozenset(" ".join((_ARITHMETIC, _SHAPES, _LISTS, _TEXTS, _CONTROL, _STATE)).split())
#: Operations that TensorFlow itself adds to functions that only save and restore variables.
_SAVER = frozenset(["MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"])


def refuse_unsafe_model(folder: Path) -> None:
    """Refuse a SavedModel that holds operations or files that towers do not need.

    Args:
        folder: the folder of the SavedModel. The graph is parsed, but not run.

    Raises:
        ArtifactError: the folder has a forbidden operation or file; the message names it.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / "saved_model.pb"
    for file in folder.rglob("*"):
        if file.is_symlink() or not (file.is_file() or file.is_dir()):
            raise ArtifactError(
                f"{file} is a link or not a regular file; our SavedModels have none of these. Load "
                "only runs that you trust, or export again."
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
        for function, op in _forbidden_operations(graph):
            raise ArtifactError(
                f"{path} holds the operation {op} (in {function}), which no tower of ours needs: a "
                "SavedModel is a program, and this one is not what `two-tower export` writes. It "
                "was not loaded. Load only runs that you trust, or export again."
            )


def _forbidden_operations(graph: Any) -> Iterator[tuple[str, str]]:
    """Yield the function and the name of each forbidden operation of a TensorFlow graph."""
    functions = {f.signature.name: f for f in graph.graph_def.library.function}
    saver = graph.saver_def
    saving = {saver.save_tensor_name.partition(":")[0], saver.restore_op_name}
    main = [node for node in graph.graph_def.node if node.name not in saving]
    entries = {name for node in main for name in _callees(node)} | _entries(graph.object_graph_def)
    by_saver = [node for node in graph.graph_def.node if node.name in saving]
    only_saver = _reachable({name for node in by_saver for name in _callees(node)}, functions)
    only_saver -= _reachable(entries, functions)
    yield from (("the graph", node.op) for node in main if node.op not in ALLOWED)
    for name, function in functions.items():
        allowed = ALLOWED | _SAVER if name in only_saver else ALLOWED
        for node in function.node_def:
            # a function can be called by its name, as if it were an operation
            if node.op not in allowed and node.op not in functions:
                yield name, node.op
            if node.op == "InitializeTableFromTextFileV2" and not _reads_argument(node, function):
                yield name, f"{node.op} of a file that is not an asset"


def _entries(objects: Any) -> set[str]:
    """Return the names of the functions that can be called after a SavedModel was loaded."""
    named = set(objects.concrete_functions)
    for node in objects.nodes:
        named |= set(node.function.concrete_functions)
        named.add(node.bare_concrete_function.concrete_function_name)
    return named


def _callees(node: Any) -> Iterator[str]:
    yield node.op
    for attribute in node.attr.values():
        yield attribute.func.name
        yield from (function.name for function in attribute.list.func)


def _reachable(names: Iterable[str], functions: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    waiting = [name for name in names if name in functions]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            called = (other for node in functions[name].node_def for other in _callees(node))
            waiting += [other for other in called if other in functions]
    return found


def _reads_argument(node: Any, function: Any) -> bool:
    """Say whether a look-up table is read from a file that is an argument of the function."""
    return node.input[1] in {argument.name for argument in function.signature.input_arg}


# ── HDF5 ────────────────────────────────────────────────────────────────────────────────


def refuse_unsafe_weights(path: Path) -> None:
    """Refuse an HDF5 file that links to other files, or whose arrays are larger than the file.

    Args:
        path: path of the weights file.

    Raises:
        ArtifactError: the file has such links or arrays; the message names them.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            total = _checked_bytes(file, path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error}). Run `two-tower train`.") from None
    if total > path.stat().st_size:
        raise _unsafe(path, f"declares {total:,} bytes of numbers, more than the file has")


def _checked_bytes(group: Any, path: Path) -> int:
    """Check every member of an HDF5 group for links, and return the bytes of its arrays."""
    import h5py

    total = 0
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise _unsafe(path, f"has a link at {name!r}, which may lead to another file")
        member = group[name]
        if isinstance(member, h5py.Group):
            total += _checked_bytes(member, path)
            continue
        if member.external or member.is_virtual:
            raise _unsafe(path, f"keeps {name!r} in another file")
        total += member.size * member.dtype.itemsize
    return total


def _unsafe(path: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"{path} {what}; `two-tower train` never writes such a file. It was not loaded. Load only "
        "runs that you trust, or train again."
    )


# ── Arrow ───────────────────────────────────────────────────────────────────────────────


def patch_arrow() -> None:
    """Prevent malicious Parquet and IPC files from running code in PyArrow before 14.0.1.

    See CVE-2023-47248. The NGC container has an older PyArrow, and the package that patches it.
    """
    import pyarrow as pa

    if tuple(int(part) for part in re.findall(r"\d+", pa.__version__)[:3]) >= (14, 0, 1):
        return
    try:
        import pyarrow_hotfix  # noqa: F401 - the import itself patches PyArrow
    except ImportError:
        log.warning(
            "PyArrow %s can run code from crafted files (CVE-2023-47248): install pyarrow-hotfix, "
            "and read only files that you trust.",
            pa.__version__,
        )


# ── signatures ──────────────────────────────────────────────────────────────────────────


def signature(content: bytes) -> str:
    """Return the HMAC-SHA-256 (RFC 2104) of a manifest's bytes; empty if no signing key is set."""
    key = os.environ.get(SIGNING_KEY, "")
    return hmac.new(key.encode(), content, hashlib.sha256).hexdigest() if key else ""


def refuse_unsigned(content: bytes, signed: str, path: Path) -> None:
    """Refuse a manifest that was not signed with the signing key; accept any if no key is set.

    Args:
        content: bytes of the manifest.
        signed: hexadecimal signature that came with the manifest, or empty.
        path: path of the manifest.

    Raises:
        ArtifactError: the signature of the manifest is missing or wrong.
    """
    if not os.environ.get(SIGNING_KEY) or hmac.compare_digest(signature(content), signed):
        return
    what = "was not signed with this key, or was changed later" if signed else "is not signed"
    raise ArtifactError(
        f"{path} {what}, and ${SIGNING_KEY} is set, so this stage is not used. Make it again with "
        "the key, or unset the key if you trust the run."
    )
