# The shadow stack pointer, which C cannot name: a suspended stack is left and entered with it.
	.globaltype	__stack_pointer, i32

	.globl	nx_get_stack_pointer
	.type	nx_get_stack_pointer,@function
nx_get_stack_pointer:
	.functype	nx_get_stack_pointer () -> (i32)
	global.get	__stack_pointer
	end_function

	.globl	nx_set_stack_pointer
	.type	nx_set_stack_pointer,@function
nx_set_stack_pointer:
	.functype	nx_set_stack_pointer (i32) -> ()
	local.get	0
	global.set	__stack_pointer
	end_function
