/* SPDX-License-Identifier: MIT */
/*
 * The switch between two contexts, where a thread begins, and where the preemption signal's handler begins, for AArch64.
 * A saved context, from the stack pointer up: x29 x30 x19..x28 d8..d15 FPCR FPSR, each 8 bytes. The rest of the vector
 * registers is the caller's to save.
 */

#define FRAME_BYTES 176

/* Return addresses are signed if the compiler signs its own: then all nodes have one key (core/cpu-aarch64.c). */
#ifdef __ARM_FEATURE_PAC_DEFAULT
#define SIGN_LR	  hint #25 /* paciasp: a landing pad, too */
#define CHECK_LR  hint #29 /* autiasp */
#define SIGN_X17  hint #8  /* pacia1716 */
#define FEATURES  3	   /* BTI, PAC */
#else
#define SIGN_LR	  hint #34 /* bti c */
#define CHECK_LR
#define SIGN_X17
#define FEATURES  1
#endif
#define LANDING	  hint #34 /* bti c */

	.text
/* void nu_switch(void **save_p, void *to, atomic_uint *running) */
	.globl	nu_switch
	.hidden	nu_switch
	.type	nu_switch, %function
	.p2align 5
nu_switch:
	.cfi_startproc
	SIGN_LR
	stp	x29, x30, [sp, #-FRAME_BYTES]!
	mrs	x3, fpcr
	mrs	x4, fpsr
	stp	x19, x20, [sp, #16]
	stp	x21, x22, [sp, #32]
	stp	x23, x24, [sp, #48]
	stp	x25, x26, [sp, #64]
	stp	x27, x28, [sp, #80]
	stp	d8, d9, [sp, #96]
	stp	d10, d11, [sp, #112]
	stp	d12, d13, [sp, #128]
	stp	d14, d15, [sp, #144]
	stp	x3, x4, [sp, #160]
	mov	x5, sp
	str	x5, [x0]
	mov	sp, x1
	/* Everything is saved and this stack is no longer used: from here on another core may run the one that left. A
	 * release: whoever sees the 0 (with acquire) sees the context, too. */
	stlr	wzr, [x2]
	ldp	x6, x7, [sp, #160]
	/* Setting control words is slow and they hardly ever differ. */
	cmp	x3, x6
	b.ne	1f
2:	cmp	x4, x7
	b.ne	3f
4:	ldp	x19, x20, [sp, #16]
	ldp	x21, x22, [sp, #32]
	ldp	x23, x24, [sp, #48]
	ldp	x25, x26, [sp, #64]
	ldp	x27, x28, [sp, #80]
	ldp	d8, d9, [sp, #96]
	ldp	d10, d11, [sp, #112]
	ldp	d12, d13, [sp, #128]
	ldp	d14, d15, [sp, #144]
	ldp	x29, x30, [sp], #FRAME_BYTES
	mov	w0, #0
	CHECK_LR
	/* Not a branch, which would have to meet a landing pad. */
	ret
1:	msr	fpcr, x6
	b	2b
3:	msr	fpsr, x7
	b	4b
	.cfi_endproc
	.size	nu_switch, . - nu_switch

/* bool nu_switch_call(void **save_p, void *top, struct nu_thread *t, void *arg, nu_handed_fn body) */
	.globl	nu_switch_call
	.hidden	nu_switch_call
	.type	nu_switch_call, %function
	.p2align 5
nu_switch_call:
	.cfi_startproc
	SIGN_LR
	stp	x29, x30, [sp, #-FRAME_BYTES]!
	mrs	x5, fpcr
	mrs	x6, fpsr
	stp	x19, x20, [sp, #16]
	stp	x21, x22, [sp, #32]
	stp	x23, x24, [sp, #48]
	stp	x25, x26, [sp, #64]
	stp	x27, x28, [sp, #80]
	stp	d8, d9, [sp, #96]
	stp	d10, d11, [sp, #112]
	stp	d12, d13, [sp, #128]
	stp	d14, d15, [sp, #144]
	stp	x5, x6, [sp, #160]
	mov	x7, sp
	str	x7, [x0]
	mov	sp, x1
	.cfi_undefined x30
	cbnz	x5, 1f				/* the ABI's initial control words */
2:	cbnz	x6, 3f
4:	mov	x0, x2
	mov	x1, x3
	mov	x29, xzr
	mov	x30, xzr
	blr	x4
	/* By ret from there, and from here: the return predictor has followed. */
5:	mov	sp, x0
	ldp	x6, x7, [sp, #160]
	mrs	x3, fpcr
	mrs	x4, fpsr
	cmp	x3, x6
	b.ne	6f
7:	cmp	x4, x7
	b.ne	8f
9:	ldp	x19, x20, [sp, #16]
	ldp	x21, x22, [sp, #32]
	ldp	x23, x24, [sp, #48]
	ldp	x25, x26, [sp, #64]
	ldp	x27, x28, [sp, #80]
	ldp	d8, d9, [sp, #96]
	ldp	d10, d11, [sp, #112]
	ldp	d12, d13, [sp, #128]
	ldp	d14, d15, [sp, #144]
	ldp	x29, x30, [sp], #FRAME_BYTES
	mov	w0, #1
	CHECK_LR
	ret
1:	msr	fpcr, xzr
	b	2b
3:	msr	fpsr, xzr
	b	4b
6:	msr	fpcr, x6
	b	7b
8:	msr	fpsr, x7
	b	9b
	.cfi_endproc
	.size	nu_switch_call, . - nu_switch_call

/* void nu_switch_back(void *to) */
	.globl	nu_switch_back
	.hidden	nu_switch_back
	.type	nu_switch_back, %function
	.p2align 4
nu_switch_back:
	.cfi_startproc
	.cfi_undefined x30
	LANDING
	b	5b
	.cfi_endproc
	.size	nu_switch_back, . - nu_switch_back

/* void *nu_switch_prepare(void *top) */
	.globl	nu_switch_prepare
	.hidden	nu_switch_prepare
	.type	nu_switch_prepare, %function
	.p2align 4
nu_switch_prepare:
	.cfi_startproc
	LANDING
	sub	x16, x0, #16			/* the thread's first stack pointer */
	stp	xzr, xzr, [x16]			/* ends unwinding */
	adrp	x17, nu_thread_entry
	add	x17, x17, :lo12:nu_thread_entry
	SIGN_X17
	sub	x0, x16, #FRAME_BYTES
	stp	xzr, x17, [x0]
	stp	xzr, xzr, [x0, #16]
	stp	xzr, xzr, [x0, #32]
	stp	xzr, xzr, [x0, #48]
	stp	xzr, xzr, [x0, #64]
	stp	xzr, xzr, [x0, #80]
	stp	xzr, xzr, [x0, #96]
	stp	xzr, xzr, [x0, #112]
	stp	xzr, xzr, [x0, #128]
	stp	xzr, xzr, [x0, #144]
	stp	xzr, xzr, [x0, #160]		/* FPCR and FPSR: the ABI's initial ones */
	ret
	.cfi_endproc
	.size	nu_switch_prepare, . - nu_switch_prepare

	.globl	nu_thread_entry
	.hidden	nu_thread_entry
	.type	nu_thread_entry, %function
	.p2align 4
nu_thread_entry:
	.cfi_startproc
	.cfi_undefined x30
	bl	nu_thread_main
	brk	#1
	.cfi_endproc
	.size	nu_thread_entry, . - nu_thread_entry

/*
 * void nu_preempt_entry(int signo, siginfo_t *info, void *frame)
 *
 * The kernel would have the handler return into its vDSO, which lies elsewhere, or is another one, on the node that the
 * frame may be moved to. So the handler is called from here and returns to here; the stack pointer is at the frame
 * again. Without unwinding information: unwinders know these two instructions for a signal frame's.
 */
	.globl	nu_preempt_entry
	.hidden	nu_preempt_entry
	.type	nu_preempt_entry, %function
	.p2align 4
nu_preempt_entry:
	LANDING
	bl	nu_preempt_handler
	mov	x8, #139			/* rt_sigreturn */
	svc	#0
	.size	nu_preempt_entry, . - nu_preempt_entry

/* No thread is caught here: where a function has put its return address cannot be told from outside. foreign.c */
	.globl	nu_return_entry
	.hidden	nu_return_entry
	.type	nu_return_entry, %function
nu_return_entry:
	brk	#1
	.size	nu_return_entry, . - nu_return_entry

	.section .note.gnu.property, "a", %note
	.p2align 3
	.word	4, 16, 5			/* lengths of name and description, NT_GNU_PROPERTY_TYPE_0 */
	.asciz	"GNU"
	.word	0xc0000000, 4, FEATURES, 0	/* GNU_PROPERTY_AARCH64_FEATURE_1_AND */

	.section .note.GNU-stack, "", %progbits
