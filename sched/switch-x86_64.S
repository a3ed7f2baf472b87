/* SPDX-License-Identifier: MIT */
/*
 * The switch between two contexts, and where a thread begins. A saved context, from the stack pointer up: SSE control
 * (4 bytes), x87 control (2), padding (2), r15 r14 r13 r12 rbx rbp, return address.
 */
	.text
/* void nu_switch(void **save_p, void *to, atomic_uint *running) */
	.globl	nu_switch
	.hidden	nu_switch
	.type	nu_switch, @function
	.p2align 5
nu_switch:
	.cfi_startproc
	pushq	%rbp
	pushq	%rbx
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	subq	$8, %rsp
	stmxcsr	(%rsp)
	fnstcw	4(%rsp)
	movl	(%rsp), %eax
	movzwl	4(%rsp), %ecx
	movq	%rsp, (%rdi)
	movq	%rsi, %rsp
	/* Everything is saved and this stack is no longer used: from here on another core may run the one that left.
	 * Stores stay in order on x86. */
	movl	$0, (%rdx)
	/* Loading control words is slow and they hardly ever differ. */
	cmpl	(%rsp), %eax
	jne	1f
2:	cmpw	4(%rsp), %cx
	jne	3f
4:	addq	$8, %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbx
	popq	%rbp
	xorl	%eax, %eax
	/* Not ret: the return predictor holds the other context's callers. */
	popq	%rcx
	jmp	*%rcx
1:	ldmxcsr	(%rsp)
	jmp	2b
3:	fldcw	4(%rsp)
	jmp	4b
	.cfi_endproc
	.size	nu_switch, . - nu_switch

/* bool nu_switch_call(void **save_p, void *top, struct nu_thread *t, void *arg, nu_handed_fn body) */
	.globl	nu_switch_call
	.hidden	nu_switch_call
	.type	nu_switch_call, @function
	.p2align 5
nu_switch_call:
	.cfi_startproc
	pushq	%rbp
	pushq	%rbx
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	subq	$8, %rsp
	stmxcsr	(%rsp)
	fnstcw	4(%rsp)
	movl	(%rsp), %eax
	movzwl	4(%rsp), %r9d
	movq	%rsp, (%rdi)
	movq	%rsi, %rsp
	.cfi_undefined rip
	/* Its control words are the ABI's initial ones; flags are as after any call. */
	andl	$~0x3f, %eax
	cmpl	$0x1f80, %eax
	jne	1f
2:	cmpl	$0x037f, %r9d
	jne	3f
4:	movq	%rdx, %rdi
	movq	%rcx, %rsi
	xorl	%ebp, %ebp
	call	*%r8
	/* By ret from there, and from here: the return predictor has followed. */
5:	movq	%rax, %rsp
	movl	(%rsp), %eax
	andl	$~0x3f, %eax
	cmpl	$0x1f80, %eax
	jne	6f
7:	cmpw	$0x037f, 4(%rsp)
	jne	8f
9:	addq	$8, %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbx
	popq	%rbp
	movl	$1, %eax
	ret
1:	movl	$0x1f80, -8(%rsp)
	ldmxcsr	-8(%rsp)
	jmp	2b
3:	movl	$0x037f, -8(%rsp)
	fldcw	-8(%rsp)
	jmp	4b
6:	ldmxcsr	(%rsp)
	jmp	7b
8:	fldcw	4(%rsp)
	jmp	9b
	.cfi_endproc
	.size	nu_switch_call, . - nu_switch_call

/* void nu_switch_back(void *to) */
	.globl	nu_switch_back
	.hidden	nu_switch_back
	.type	nu_switch_back, @function
	.p2align 4
nu_switch_back:
	.cfi_startproc
	.cfi_undefined rip
	movq	%rdi, %rax
	jmp	5b
	.cfi_endproc
	.size	nu_switch_back, . - nu_switch_back

/* void *nu_switch_prepare(void *top) */
	.globl	nu_switch_prepare
	.hidden	nu_switch_prepare
	.type	nu_switch_prepare, @function
	.p2align 4
nu_switch_prepare:
	.cfi_startproc
	leaq	nu_thread_entry(%rip), %rcx
	xorl	%edx, %edx
	movq	%rdx, -8(%rdi)
	movq	%rdx, -16(%rdi)		/* ends unwinding; 16-aligned: the call below expects it */
	movq	%rcx, -24(%rdi)
	movq	%rdx, -32(%rdi)		/* rbp */
	movq	%rdx, -40(%rdi)
	movq	%rdx, -48(%rdi)
	movq	%rdx, -56(%rdi)
	movq	%rdx, -64(%rdi)
	movq	%rdx, -72(%rdi)		/* r15 */
	movl	$0x1f80, -80(%rdi)	/* the ABI's initial control words */
	movl	$0x037f, -76(%rdi)
	leaq	-80(%rdi), %rax
	ret
	.cfi_endproc
	.size	nu_switch_prepare, . - nu_switch_prepare

	.globl	nu_thread_entry
	.hidden	nu_thread_entry
	.type	nu_thread_entry, @function
	.p2align 4
nu_thread_entry:
	.cfi_startproc
	.cfi_undefined rip
	call	nu_thread_main
	ud2
	.cfi_endproc
	.size	nu_thread_entry, . - nu_thread_entry

/* void nu_preempt_entry(int signo, siginfo_t *info, void *frame): the handler returns into the C library */
	.globl	nu_preempt_entry
	.hidden	nu_preempt_entry
	.type	nu_preempt_entry, @function
	.p2align 4
nu_preempt_entry:
	.cfi_startproc
	jmp	nu_preempt_handler
	.cfi_endproc
	.size	nu_preempt_entry, . - nu_preempt_entry


/*
 * What a function of the C library returns to, in place of the program's code, if its thread was caught: foreign.c. Results may
 * be in rax, rdx and any vector or x87 register.
 */
	.globl	nu_return_entry
	.hidden	nu_return_entry
	.type	nu_return_entry, @function
	.p2align 4
	nop
nu_return_entry:
	.cfi_startproc
	.cfi_undefined rip
	pushq	$0 /* where to go on, when that is known */
	pushq	%rbp
	movq	%rsp, %rbp
	pushq	%rax
	pushq	%rdx
	pushq	%rcx /* these for mcount() and the like, which keep what every function has been given */
	pushq	%rsi
	pushq	%rdi
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	movl	nu_return_bytes(%rip), %eax
	subq	%rax, %rsp
	andq	$-64, %rsp
	xorl	%eax, %eax
	movq	%rax, 512(%rsp)
	movq	%rax, 520(%rsp)
	movq	%rax, 528(%rsp)
	movq	%rax, 536(%rsp)
	movq	%rax, 544(%rsp)
	movq	%rax, 552(%rsp)
	movq	%rax, 560(%rsp)
	movq	%rax, 568(%rsp)
	movl	nu_return_mask(%rip), %eax
	xorl	%edx, %edx
	xsave64	(%rsp)
	call	nu_return_back
	movq	%rax, 8(%rbp)
	movl	nu_return_mask(%rip), %eax
	xorl	%edx, %edx
	xrstor64 (%rsp)
	movq	-8(%rbp), %rax
	movq	-16(%rbp), %rdx
	movq	-24(%rbp), %rcx
	movq	-32(%rbp), %rsi
	movq	-40(%rbp), %rdi
	movq	-48(%rbp), %r8
	movq	-56(%rbp), %r9
	movq	-64(%rbp), %r10
	movq	-72(%rbp), %r11
	movq	%rbp, %rsp
	popq	%rbp
	ret
	.cfi_endproc
	.size	nu_return_entry, . - nu_return_entry

	.section .note.GNU-stack, "", @progbits
