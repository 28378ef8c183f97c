# Boot script of the virtual device: U-Boot keeps Mender's variables in a raw,
# redundant environment, as a board with CONFIG_ENV_REDUNDANT does. This U-Boot
# has its own environment nowhere and no setexpr, so the script does by hand
# what saveenv and the boot counter do on a board.
#
# A copy is crc32(4) flags(1) data. "env import -c" and "env export -c" know
# crc32(4) data, so the flags byte is cut out and put in.

setenv size 4000
setenv plain 3fff
setenv copy1 2000000
setenv copy2 2010000
setenv work 2020000
setenv out 2030000
setenv blocks 20
setenv sector1 800
setenv sector2 820

virtio scan
virtio read ${copy1} ${sector1} ${blocks}
virtio read ${copy2} ${sector2} ${blocks}

# Which copies are good?
setenv good1 0
setenv good2 0
mw.b ${work} 0 ${size}
cp.b ${copy1} ${work} 4; cp.b 2000005 2020004 3ffb
if env import -c ${work} ${plain} nothing; then setenv good1 1; fi
cp.b ${copy2} ${work} 4; cp.b 2010005 2020004 3ffb
if env import -c ${work} ${plain} nothing; then setenv good2 1; fi

# Which one is in force?
setenv active 0
if test ${good1} = 1; then setenv active 1; fi
if test ${good2} = 1; then
	if test ${good1} = 0; then
		setenv active 2
	else
		if itest.b *2010004 -gt *2000004; then setenv active 2; fi
		if itest.b *2000004 -eq ff; then if itest.b *2010004 -eq 0; then setenv active 2; fi; fi
		if itest.b *2010004 -eq ff; then if itest.b *2000004 -eq 0; then setenv active 1; fi; fi
	fi
fi
if test ${active} = 1; then setenv from ${copy1}; setenv flagat 2000004; setenv to ${sector2}; cp.b ${copy1} ${work} 4; cp.b 2000005 2020004 3ffb; fi
if test ${active} = 2; then setenv from ${copy2}; setenv flagat 2010004; setenv to ${sector1}; cp.b ${copy2} ${work} 4; cp.b 2010005 2020004 3ffb; fi

setenv mender_boot_part 2
setenv mender_boot_part_hex 2
setenv upgrade_available 0
setenv bootcount 0
setenv bootlimit 1
if test ${active} = 0; then
	echo MENDER no good environment: defaults
else
	env import -c ${work} ${plain} mender_boot_part mender_boot_part_hex upgrade_available bootcount vendor_serial mender_check_saveenv_canary mender_saveenv_canary
fi
setenv save 0
if test "${upgrade_available}" = 1; then
	setenv save 1
	if test "${bootcount}" = 0; then
		setenv bootcount 1
	else
		echo MENDER trial was not committed: back to the other slot
		if test "${mender_boot_part}" = 2; then setenv mender_boot_part 3; else setenv mender_boot_part 2; fi
		setenv mender_boot_part_hex ${mender_boot_part}
		setenv upgrade_available 0
		setenv bootcount 0
	fi
fi
if test "${mender_saveenv_canary}" != 1; then setenv save 1; setenv mender_check_saveenv_canary 1; setenv mender_saveenv_canary 1; fi
if test ${active} = 0; then setenv save 1; setenv to ${sector1}; setenv flagat 2000004; fi
if test ${save} = 1; then
	mw.b ${out} 0 ${size}
	env export -c -s ${plain} ${work} mender_boot_part mender_boot_part_hex upgrade_available bootcount vendor_serial mender_check_saveenv_canary mender_saveenv_canary
	cp.b ${work} ${out} 4
	cp.b 2020004 2030005 3ffb
	# The next flags byte: counted by a list, for want of arithmetic.
	setenv previous none
	setenv done 0
	for h in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do for l in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do
		if test ${done} = 0; then
			if test ${previous} = match; then mw.b 2030004 ${h}${l}; setenv done 1; fi
			if itest.b *${flagat} -eq ${h}${l}; then setenv previous match; fi
		fi
	done; done
	if test ${done} = 0; then mw.b 2030004 0; fi
	virtio write ${out} ${to} ${blocks}
	echo MENDER environment saved
fi

echo MENDER boots slot ${mender_boot_part} trial ${upgrade_available}
setenv bootargs "root=/dev/vda${mender_boot_part} @OPTIONS@"
if ext4load virtio 0:${mender_boot_part} 1000000 /boot/vmlinuz; then
	if ext4load virtio 0:${mender_boot_part} 4000000 /boot/initrd; then
		zboot 1000000 - 4000000 ${filesize}
	fi
fi
echo MENDER slot ${mender_boot_part} does not start
reset
