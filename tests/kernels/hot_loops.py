#!/usr/bin/env python3
"""Fails on vector spills inside the innermost loops of the matrix and attention kernels.

    hot_loops.py --objdump objdump OBJECT.o ...

Disassembles the objects and looks at every function of HOT. A loop is a backward jump inside one function; it is innermost
when no other loop begins and ends inside it, and hot when it multiplies vectors. In such a loop an instruction that names
a vector register (of the width that the object's path computes with) and a fixed slot of the stack is a spill, or the
reload of one: the compiler ran out of registers where every cycle counts. A stack address with an index register is an
array, which is meant. rbp counts as the stack only in functions that make it their frame pointer.

KNOWN lists what is tolerated: functions by a pattern, the number of such instructions in all of them together, and why.
More is an error, and so is an entry that has become half as large as it says: the list may only shrink.
Prints function, loop and instruction of each; exit 1 where there is one that is not tolerated, or where an object
has no hot loop at all (the check would be blind). Objects of sanitizers, without optimisation, or of a compiler that
KNOWN was not written for say nothing: --skip REASON prints why and ends with 77, which ctest counts as skipped.
"""
import argparse
import collections
import re
import subprocess
import sys

SKIPPED = 77

# What a function that is held to the rule is called, without its template arguments.
HOT = re.compile(r"\b(Int8Tile|Int8Rows|AmxInt8::\w+|Bf16Tile|AmxBf16::\w+|FloatTile|FloatBlock|ScoreBlock|ScorePairs|Score|ValueBlock|"
                 r"ValuePairs|AddValues|AttendTile|Attend)\b")
MULTIPLY = re.compile(r"^(?:v?mulps|v?pmaddubsw|v?pmaddwd|vpdp\w+|vfn?m(?:add|sub)\w*ps|vdpbf16ps|tdp\w+)$")
STACK_POINTERS = {"rsp", "esp"}
FRAME_POINTER = {"rbp", "ebp"}

Known = collections.namedtuple("Known", "object function count reason")
KNOWN = [
    # object and function are patterns that match from the start to the end
    Known("gemm_avx2", r"Avx2Int8<MaddDot>::Int8(Tile|Rows)<.*>", 545,
          "16 registers: masks and constants of the wider formats are operands in memory, and four rows of sums leave few for planes"),
    Known("gemm_avx2", r"MatMulTemplates<Avx2Path>::Float(Tile|Block)<.*>", 125,
          "four rows of two sums, two vectors of weights and their halves want 18 registers; weights of 16 bits in fp32 mode"),
    Known("gemm_avx2_vnni", r"Avx2Int8<VnniDot>::Int8(Tile|Rows)<.*>", 92,
          "Q2_K and Q3_K have two sums a row and masks of pairs and bits beside them"),
    Known("gemm_avx512", r"MatMulTemplates<Avx512Path>::FloatBlock<.*>", 11,
          "one constant of unpacking is reloaded once a group, in fp32 mode only"),
    Known("gemm_avx512", r"Int8Tile<\(PanelFormat\)9, 8>", 2, "a constant of Q2_K is an operand in memory once a group"),
    Known("row_ops_avx2", r"AttentionTemplates<Avx2Path, .*>::Attend", 10,
          "constants of exp are operands in memory, once in 8 keys"),
    Known("row_ops_avx512.*", r"AttentionTemplates<Avx512(Bf16)?Path, .*>::Attend", 3, "likewise, once in 16 keys"),
]

Instruction = collections.namedtuple("Instruction", "address mnemonic operands text")
Finding = collections.namedtuple("Finding", "object function loop instruction")

HEADER = re.compile(r"^([0-9a-f]+) <(.+)>:$")
LINE = re.compile(r"^\s*([0-9a-f]+):\s+(?:(?:\{\w+\}|rep\w*|lock|bnd|notrack)\s+)*(\S+)\s*(.*)$")
JUMP_TARGET = re.compile(r"^([0-9a-f]+)(?:\s|$)")
MEMORY = re.compile(r"\(([^)]*)\)")
VECTOR = re.compile(r"%([xyz])mm\d+")


def functions(listing):
    """(name, instructions) of each function of what objdump -d prints."""
    name, body = None, []
    for line in listing.splitlines():
        header = HEADER.match(line)
        if header:
            if name is not None:
                yield name, body
            name, body = header.group(2), []
            continue
        match = LINE.match(line)
        if match and name is not None:
            operands = match.group(3).split("#")[0].strip()
            body.append(Instruction(int(match.group(1), 16), match.group(2), operands, f"{match.group(2)} {operands}"))
    if name is not None:
        yield name, body


def innermost_loops(body):
    """(first address, last address) of the loops that hold no other."""
    loops = set()
    first = body[0].address if body else 0
    for instruction in body:
        if not instruction.mnemonic.startswith("j"):
            continue
        target = JUMP_TARGET.match(instruction.operands)
        if target and first <= int(target.group(1), 16) <= instruction.address:
            loops.add((int(target.group(1), 16), instruction.address))
    def holds_another(outer):
        return any(inner != outer and outer[0] <= inner[0] and inner[1] <= outer[1] for inner in loops)
    return sorted(loop for loop in loops if not holds_another(loop))


def uses_frame_pointer(body):
    return any(i.mnemonic.startswith("mov") and re.fullmatch(r"%rsp,\s*%rbp", i.operands) for i in body)


def widest_registers(instructions):
    """The letters of the vector registers that count: x only where nothing wider is computed with."""
    letters = {letter for i in instructions for letter in VECTOR.findall(i.operands)}
    return letters - {"x"} if letters - {"x"} else letters


def is_spill(instruction, stack, letters):
    if not letters & set(VECTOR.findall(instruction.operands)):
        return False
    memory = MEMORY.search(instruction.operands)
    if memory is None:
        return False
    parts = [part.strip().lstrip("%") for part in memory.group(1).split(",")]
    return len(parts) == 1 and parts[0] in stack


def check_function(object_name, name, body):
    """(number of hot loops, findings) of one function."""
    stack = STACK_POINTERS | (FRAME_POINTER if uses_frame_pointer(body) else set())
    num_hot, findings = 0, []
    for first, last in innermost_loops(body):
        loop = [i for i in body if first <= i.address <= last]
        multiplications = [i for i in loop if MULTIPLY.match(i.mnemonic)]
        if not multiplications:
            continue
        num_hot += 1
        letters = widest_registers(multiplications)
        findings += [Finding(object_name, name, first, i) for i in loop if is_spill(i, stack, letters)]
    return num_hot, findings


def short_name(function):
    """A demangled name without return type, namespaces and parameters, which differ from compiler to compiler."""
    name = re.sub(r"\(anonymous namespace\)::|fastgen::cpu::", "", function)
    depth, end = 0, len(name)
    for at, letter in enumerate(name):  # the parameters: the first parenthesis outside of template arguments
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            end = at
            break
    name = name[:end]
    depth = 0
    for at in range(len(name) - 1, -1, -1):  # the return type: before the last blank outside of them
        depth += (name[at] == ">") - (name[at] == "<")
        if name[at] == " " and depth == 0:
            return name[at + 1:]
    return name


def without_arguments(name):
    while "<" in name:
        name, before = re.sub(r"<[^<>]*>", "", name), name
        if name == before:
            break
    return name


def check_listing(object_name, listing):
    """(number of hot loops, findings) of one object."""
    num_hot, findings = 0, []
    for mangled_or_not, body in functions(listing):
        name = short_name(mangled_or_not)
        if not HOT.search(without_arguments(name)):
            continue
        loops, found = check_function(object_name, name, body)
        num_hot += loops
        findings += found
    return num_hot, findings


def apply_known(findings, known):
    """Findings that are not tolerated, and complaints about entries that do not fit what there is."""
    left, complaints = list(findings), []
    for entry in known:
        matched = [f for f in left if re.fullmatch(entry.object, f.object) and re.fullmatch(entry.function, f.function)]
        if len(matched) > entry.count:
            complaints.append(f"{entry.object}: {entry.function}: {len(matched)} stack accesses, {entry.count} tolerated")
            continue  # all of them are printed
        left = [f for f in left if f not in matched]
        if 2 * len(matched) <= entry.count:
            complaints.append(f"{entry.object}: {entry.function}: {len(matched)} stack accesses, {entry.count} tolerated: "
                              "shrink or drop the entry")
    return left, complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objdump", default="objdump")
    parser.add_argument("--skip", default="", help="say why and end with 77")
    parser.add_argument("--all", action="store_true", help="print what is tolerated, too")
    parser.add_argument("objects", nargs="*")
    arguments = parser.parse_args()
    if arguments.skip:
        print(f"skipped: {arguments.skip}")
        return SKIPPED
    if not arguments.objects:
        print("no object to look at")
        return 1
    names, findings, failed = [], [], False
    for path in arguments.objects:
        object_name = re.sub(r"\.cc\.o$", "", path.rsplit("/", 1)[-1])
        names.append(object_name)
        listing = subprocess.run([arguments.objdump, "-d", "-C", "--no-show-raw-insn", path], check=True, text=True,
                                 capture_output=True).stdout
        num_hot, found = check_listing(object_name, listing)
        print(f"{object_name}: {num_hot} hot loops, {len(found)} stack accesses")
        if num_hot == 0:
            print(f"{object_name}: no function of HOT has a loop that multiplies: is its name still there?")
            failed = True
        findings += found
    known = [entry for entry in KNOWN if any(re.fullmatch(entry.object, name) for name in names)]
    left, complaints = apply_known(findings, known)
    for finding in findings if arguments.all else left:
        print(f"{finding.object}: {finding.function}: loop at {finding.loop:x}: "
              f"{finding.instruction.address:x}: {finding.instruction.text}")
    for complaint in complaints:
        print(complaint)
    return 1 if failed or left or complaints else 0


if __name__ == "__main__":
    sys.exit(main())
