#!/usr/bin/env python3
"""hot_loops.py finds each planted spill in assembled loops, and nothing in loops that keep to their registers."""
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).with_name("hot_loops.py")
spec = importlib.util.spec_from_file_location("hot_loops", SCRIPT)
hot_loops = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hot_loops)

CLEAN = """
    vpxord %zmm0, %zmm0, %zmm0
1:  vmovdqu64 (%rdi), %zmm1
    vpdpbusd (%rsi){1to16}, %zmm1, %zmm0
    add $64, %rdi
    dec %rdx
    jne 1b
    vmovdqu64 %zmm0, (%rcx)
    ret
"""


def loop(extra, before="", after=""):
    """A loop that multiplies, with an instruction more."""
    return f"""
    {before}
1:  vmovdqu64 (%rdi), %zmm1
    vpdpbusd (%rsi){{1to16}}, %zmm1, %zmm0
    {extra}
    dec %rdx
    jne 1b
    {after}
    ret
"""


class HotLoopsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def assemble(self, functions):
        """An object with these functions: name -> body."""
        source = self.folder / "gemm_test.s"
        target = self.folder / "gemm_test.cc.o"
        text = ".text\n" + "".join(f".globl {name}\n.type {name}, @function\n{name}:\n{body}\n"
                                   for name, body in functions.items())
        source.write_text(text)
        subprocess.run(["as", str(source), "-o", str(target)], check=True)
        return target

    def run_script(self, *arguments):
        run = subprocess.run([sys.executable, "-B", str(SCRIPT), *map(str, arguments)], text=True, capture_output=True,
                             check=False)
        self.assertEqual(run.stderr, "")
        return run.returncode, run.stdout.splitlines()

    def check(self, body, name="Int8Tile"):
        """What is reported of one function, the summary left out."""
        code, lines = self.run_script(self.assemble({name: body}))
        self.assertEqual(code, 1 if lines[1:] else 0, lines)
        return lines[1:]

    def assert_found(self, body, instruction):
        lines = self.check(body)
        self.assertEqual(len(lines), 1, lines)
        self.assertTrue(lines[0].startswith("gemm_test: Int8Tile: loop at "), lines)
        self.assertTrue(lines[0].endswith(": " + instruction), lines)

    def test_a_loop_in_registers_passes(self):
        self.assertEqual(self.check(CLEAN), [])

    def test_a_store_to_the_stack_is_found(self):
        self.assert_found(loop("vmovaps %zmm0, 64(%rsp)"), "vmovaps %zmm0,0x40(%rsp)")

    def test_a_reload_is_found(self):
        self.assert_found(loop("vmovups -56(%rsp), %zmm3"), "vmovups -0x38(%rsp),%zmm3")

    def test_a_reload_inside_arithmetic_is_found(self):
        self.assert_found(loop("vpaddd 128(%rsp), %zmm0, %zmm0"), "vpaddd 0x80(%rsp),%zmm0,%zmm0")

    def test_a_spill_of_a_narrower_path_is_found(self):
        body = """
1:      vmovdqu (%rdi), %ymm1
        vpmaddubsw (%rsi), %ymm1, %ymm0
        vmovdqa %ymm0, 32(%rsp)
        dec %rdx
        jne 1b
        ret
"""
        self.assert_found(body, "vmovdqa %ymm0,0x20(%rsp)")

    def test_spills_outside_of_the_loop_do_not_matter(self):
        self.assertEqual(self.check(loop("", before="vmovaps %zmm0, 64(%rsp)", after="vmovaps 64(%rsp), %zmm0")), [])

    def test_spills_in_an_outer_loop_do_not_matter(self):
        body = """
2:      vmovaps %zmm0, 64(%rsp)
1:      vpdpbusd (%rsi){1to16}, %zmm1, %zmm0
        dec %rdx
        jne 1b
        dec %rcx
        jne 2b
        ret
"""
        self.assertEqual(self.check(body), [])

    def test_a_jump_forward_is_no_loop(self):
        body = CLEAN.replace("    ret", """
        test %rax, %rax
        je 3f
        vpdpbusd %zmm2, %zmm1, %zmm0
        vmovaps %zmm0, 64(%rsp)
3:      ret
""")
        self.assertEqual(self.check(body), [])

    def test_the_frame_pointer_is_the_stack_where_it_is_one(self):
        self.assert_found(loop("vmovaps %zmm0, -128(%rbp)", before="push %rbp\n mov %rsp, %rbp"),
                          "vmovaps %zmm0,-0x80(%rbp)")

    def test_rbp_is_a_pointer_like_others_elsewhere(self):
        self.assertEqual(self.check(loop("vmovups 64(%rbp), %zmm3")), [])

    def test_an_array_on_the_stack_is_no_spill(self):
        self.assertEqual(self.check(loop("vmovups 64(%rsp,%rax,4), %zmm3")), [])

    def test_scalars_beside_vectors_are_no_spill(self):
        self.assertEqual(self.check(loop("vmovss %xmm7, 12(%rsp)")), [])
        self.assertEqual(self.check(loop("mov %rax, 24(%rsp)")), [])

    def test_a_loop_that_does_not_multiply_is_not_hot(self):
        body = CLEAN + """
2:      vmovaps %zmm0, 64(%rsp)
        dec %rdx
        jne 2b
        ret
"""
        self.assertEqual(self.check(body), [])

    def test_functions_by_other_names_are_left_alone(self):
        spilling = loop("vmovaps %zmm0, 64(%rsp)")
        code, lines = self.run_script(self.assemble({"Int8Tile": CLEAN, "PrepareInt8Tiles": spilling}))
        self.assertEqual((code, len(lines)), (0, 1), lines)

    def test_an_object_without_hot_loops_is_an_error(self):
        lines = self.check("ret", name="Renamed")
        self.assertEqual(len(lines), 1)
        self.assertIn("is its name still there", lines[0])

    def test_no_objects_are_an_error(self):
        self.assertEqual(self.run_script()[0], 1)

    def test_skipping_says_why(self):
        self.assertEqual(self.run_script("--skip", "a sanitizer"), (77, ["skipped: a sanitizer"]))

    def test_names_lose_what_differs_between_compilers(self):
        name = ("void fastgen::cpu::(anonymous namespace)::Int8Tile<(fastgen::cpu::PanelFormat)9, 8>"
                "(unsigned char const*, void const*, long, float*)")
        self.assertEqual(hot_loops.short_name(name), "Int8Tile<(PanelFormat)9, 8>")
        self.assertEqual(hot_loops.short_name("fastgen::cpu::AttentionTemplates<A, unsigned short>::Attend(long)"),
                         "AttentionTemplates<A, unsigned short>::Attend")
        self.assertEqual(hot_loops.without_arguments("A<B<int>, 2>::Attend"), "A::Attend")

    def test_the_list_of_known_ones_may_only_shrink(self):
        instruction = hot_loops.Instruction(1, "vmovaps", "", "vmovaps")
        findings = [hot_loops.Finding("gemm_a", f"Int8Tile<{i}>", 0, instruction) for i in range(4)]
        def apply(count):
            left, complaints = hot_loops.apply_known(findings, [hot_loops.Known("gemm_a", r"Int8Tile<\d>", count, "")])
            return len(left), len(complaints)
        self.assertEqual(apply(4), (0, 0))
        self.assertEqual(apply(7), (0, 0))
        self.assertEqual(apply(8), (0, 1))
        self.assertEqual(apply(3), (4, 1))
        self.assertEqual(hot_loops.apply_known(findings, [hot_loops.Known("gemm_b", ".*", 4, "")])[0], findings)

    def test_every_known_one_has_a_reason(self):
        for entry in hot_loops.KNOWN:
            self.assertGreater(len(entry.reason), 10, entry)


if __name__ == "__main__":
    unittest.main()
